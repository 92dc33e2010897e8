/**
 * How plots look, for the page that holds them. The colours are apart for people with any kind of colour blindness (Okabe and Ito 2008), and
 * darkened until each has a contrast of 3 on white. On paper they are those of the light page.
 */
export const plotStyle = `
.plot { --s0: #0072b2; --s1: #c44e00; --s2: #00805c; --s3: #a23b87; --s4: #806600; --s5: #4d4d4d; --right: #7cc0ea; --wrong: #f2a65a;
  --text: #1b1f24; --grid: #d9dde2; --axis: #5c6670; --under: #fff; display: block; width: 100%; height: auto; }
.plot text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--text); }
.plot .plot-title { font-weight: 600; }
.plot .plot-none { fill: var(--axis); }
.plot .s0 { --c: var(--s0); } .plot .s1 { --c: var(--s1); --d: 6 3; } .plot .s2 { --c: var(--s2); --d: 2 3; }
.plot .s3 { --c: var(--s3); --d: 8 3 2 3; } .plot .s4 { --c: var(--s4); --d: 10 4; } .plot .s5 { --c: var(--s5); --d: 4 2; }
.plot-line { fill: none; stroke: var(--c); stroke-width: 2; stroke-dasharray: var(--d); stroke-linecap: round; stroke-linejoin: round; }
.plot-thin { stroke-width: 1; stroke-opacity: .7; stroke-dasharray: none; }
.plot .plot-over { paint-order: stroke; stroke: var(--under); stroke-width: 3; }
.plot-interval { fill: none; stroke: var(--c); stroke-width: 2; }
.plot-dot, .plot-bar { fill: var(--c); }
.plot-front { fill: none; stroke: var(--axis); stroke-width: 1.5; stroke-dasharray: 4 3; }
.plot-grid { stroke: var(--grid); stroke-width: 1; }
.plot-axis { stroke: var(--axis); stroke-width: 1; }
.plot-cell { fill: none; stroke: var(--grid); }
.plot-right { fill: var(--right); } .plot-wrong { fill: var(--wrong); }
@media screen and (prefers-color-scheme: dark) {
  .plot { --s0: #56b4e9; --s1: #f0803c; --s2: #2fc49b; --s3: #e08fc8; --s4: #e6c229; --s5: #bdbdbd; --right: #1f6fa8; --wrong: #a5501f;
    --text: #e6e9ec; --grid: #353c44; --axis: #98a2ad; --under: #14181d; }
}
`;
