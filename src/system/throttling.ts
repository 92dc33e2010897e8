/** Why the clocks of a GPU are lower than they could be: the bit that NVML has for it (nvmlClocksThrottleReasons). Bit 0, an idle GPU, is no reason. */
const reasons = {
  APPLICATION_CLOCKS: { bit: 0x2, title: 'An administrator has set its clocks.' },
  POWER_CAP: { bit: 0x4, title: 'It draws as much power as it may.' },
  HARDWARE_SLOWDOWN: { bit: 0x8, title: 'The hardware has halved its clocks, or more: heat, or a power brake.' },
  SYNC_BOOST: { bit: 0x10, title: 'It runs as fast as the slowest GPU of its group.' },
  THERMAL_SLOWDOWN: { bit: 0x20, title: 'The driver has lowered its clocks, since it is too hot.' },
  HARDWARE_THERMAL_SLOWDOWN: { bit: 0x40, title: 'The hardware has halved its clocks, or more, since it is too hot.' },
  POWER_BRAKE: { bit: 0x80, title: 'The power supply has told it to slow down.' },
  DISPLAY_CLOCKS: { bit: 0x100, title: 'A display keeps its clocks low.' },
};

export type ThrottleReason = keyof typeof reasons;
export const throttleReasons = Object.keys(reasons) as [ThrottleReason, ...ThrottleReason[]];
export const throttleTitles = Object.fromEntries(throttleReasons.map((reason) => [reason, reasons[reason].title])) as Record<
  ThrottleReason,
  string
>;

/** Null where the driver does not report it. Bits that are not in the table are left out. */
export const throttleReasonsOf = (bits: number | null): ThrottleReason[] | null =>
  bits === null ? null : throttleReasons.filter((reason) => (bits & reasons[reason].bit) !== 0);
