/** What every screen can ask of the frame around it. */
import { createContext, useContext } from 'react';

export interface Route {
  screen: string;
  /** What the screen is about, such as the id of a job. */
  id?: string;
}

export interface Frame {
  route: Route;
  /** Room for the screen, in cells. */
  width: number;
  height: number;
  /** What lists show: rows that have this text in them. */
  filter: string;
  go(screen: string, id?: string): void;
  /** As `go`, but `esc` does not come back here. */
  replace(screen: string, id?: string): void;
  back(): void;
  /** Ids of the runs that are chosen to be compared, two to four of them. */
  marked: readonly string[];
  /** Chooses a run, or no longer. */
  mark(id: string): void;
  /** Asks before `run`. */
  confirm(question: string, run: () => void): void;
  /** A line in the footer for a few seconds. */
  say(text: string, kind?: 'good' | 'bad'): void;
  /**
   * Hands a text over to be pasted elsewhere: into the clipboard of the terminal, and whole onto its normal screen when the UI has
   * closed, since not every terminal has such a clipboard. A secret does not stay on the screen.
   */
  copy(what: string, text: string, kind?: 'secret'): void;
}

export const FrameContext = createContext<Frame | null>(null);

export function useFrame(): Frame {
  const frame = useContext(FrameContext);
  if (!frame) throw new Error('A screen stands inside the frame.');
  return frame;
}
