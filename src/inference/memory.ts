/**
 * The one budget of the bytes that requests make exist: bodies while they arrive and wait, decoded images, staged copies, answers until
 * their clients have read them. Bytes are counted before they exist, and each request gives back all of its own at its end.
 */
import { busy, HttpError } from './httpError.ts';
import { whenIdle } from './idle.ts';

const freeBytesMax = 32 * 2 ** 20;
/** Of the budget, for one model: the clients of one cannot keep out those of another. */
const shareMax = 3 / 4;

/** The collector would let a burst of large buffers lie for a long time. */
const freeNow = ({ buffer }: Buffer): void => void (buffer as ArrayBuffer).transfer(0);

interface Waiter {
  holding: Holding;
  bytes: number;
  resolve(): void;
}

export class Memory {
  readonly #max: number;
  readonly #free: Buffer[] = [];
  readonly #byModel = new Map<string, number>();
  readonly #used = whenIdle(() => {
    for (const buffer of this.#free.splice(0)) freeNow(buffer);
  });
  #waiting: Waiter[] = [];
  /** Bytes that are held. */
  used = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** For one request to a model. */
  open(model: string): Holding {
    return new Holding(this, model);
  }

  get shareMax(): number {
    return Math.floor(this.#max * shareMax);
  }

  fits(model: string, bytes: number): boolean {
    return this.used + bytes <= this.#max && (this.#byModel.get(model) ?? 0) + bytes <= this.shareMax;
  }

  /** Without asking whether they fit: they exist already, and keep others out. */
  count(model: string, bytes: number): void {
    this.used += bytes;
    const held = (this.#byModel.get(model) ?? 0) + bytes;
    if (held > 0) this.#byModel.set(model, held);
    else this.#byModel.delete(model);
    if (bytes < 0) this.#serveWaiting();
  }

  wait(waiter: Waiter, until: Promise<unknown>): void {
    this.#waiting.push(waiter);
    void until.then(() => {
      this.#waiting = this.#waiting.filter((one) => one !== waiter);
    });
  }

  /** Those of a model are served in the order in which they came. */
  #serveWaiting(): void {
    const held = new Set<string>();
    for (const waiter of [...this.#waiting]) {
      const { model } = waiter.holding;
      if (held.has(model) || !this.fits(model, waiter.bytes)) {
        held.add(model);
        continue;
      }
      this.#waiting.splice(this.#waiting.indexOf(waiter), 1);
      waiter.holding.count(waiter.bytes);
      waiter.resolve();
    }
  }

  /** A buffer of at least so many bytes, at most twice as many: one that was used before where there is one. */
  allocate(bytes: number): Buffer {
    const at = this.#free.findIndex(({ length }) => length >= bytes && length <= 2 * bytes);
    return this.#free.splice(at, at < 0 ? 0 : 1)[0] ?? Buffer.allocUnsafeSlow(bytes);
  }

  /** For other requests, as long as there are some. */
  recycle(buffer: Buffer): void {
    this.#free.push(buffer);
    for (let free = this.#free.reduce((sum, { length }) => sum + length, 0); free > freeBytesMax; ) {
      const dropped = this.#free.shift() as Buffer;
      free -= dropped.length;
      freeNow(dropped);
    }
    this.#used();
  }
}

/** What one request holds of the budget. Its owner releases all of it at the end, whatever happens meanwhile. */
export class Holding {
  readonly model: string;
  readonly #memory: Memory;
  readonly #buffers = new Set<Buffer>();
  #bytes = 0;

  constructor(memory: Memory, model: string) {
    this.#memory = memory;
    this.model = model;
  }

  /** So many bytes are going to exist. Throws a HttpError (429) where they do not fit. */
  reserve(bytes: number): void {
    if (!this.#memory.fits(this.model, bytes)) throw busy('The host holds as many bytes of requests and answers as it may.', 1000);
    this.count(bytes);
  }

  /** Like `reserve`, but waits until they fit; does not resolve any more after `until`. Throws a HttpError (413) where they never fit. */
  async reserveLater(bytes: number, until: Promise<unknown>): Promise<void> {
    const { shareMax } = this.#memory;
    if (bytes > shareMax) throw new HttpError(413, `It needs ${bytes} bytes of memory; a model can have ${shareMax} (queueBytesMax).`);
    if (this.#memory.fits(this.model, bytes)) return this.count(bytes);
    await new Promise<void>((resolve) => this.#memory.wait({ holding: this, bytes, resolve }, until));
  }

  /** So many bytes exist; negative, not any more. */
  count(bytes: number): void {
    this.#bytes += bytes;
    this.#memory.count(this.model, bytes);
  }

  /** A buffer of at least so many bytes. Throws a HttpError (429) where they do not fit. */
  take(bytes: number): Buffer {
    this.reserve(bytes);
    const buffer = this.#memory.allocate(bytes);
    this.count(buffer.length - bytes);
    this.#buffers.add(buffer);
    return buffer;
  }

  /** The buffer is another request's from now on. */
  give(buffer: Buffer): void {
    if (!this.#buffers.delete(buffer)) return;
    this.#memory.recycle(buffer);
    this.count(-buffer.length);
  }

  /** Everything so far is the other holding's from now on. */
  handOver(): Holding {
    const other = new Holding(this.#memory, this.model);
    for (const buffer of this.#buffers) other.#buffers.add(buffer);
    other.#bytes = this.#bytes;
    this.#buffers.clear();
    this.#bytes = 0;
    return other;
  }

  /** Everything so far. */
  giveAll(): void {
    for (const buffer of this.#buffers) this.give(buffer);
    this.count(-this.#bytes);
  }
}
