/** A report as people read it: its facts with their sentences. */
import type { Report, ReportView, SpokenFacts } from './report.ts';
import { choiceText, deltaText, reasonText, stepText } from './sentences.ts';
import { simpleView } from './simple.ts';

/** Reports of the forms 1 to 3 were stored with their sentences. */
const spokenFormMax = 3;

/** `stored` is the parsed content of a report of any form. */
export function viewOf(stored: Report | ReportView): ReportView {
  return stored.schemaVersion <= spokenFormMax ? (stored as ReportView) : speak(stored as Report);
}

function speak(report: Report): ReportView {
  const { rows, deltas, choice } = report;
  const spoken: SpokenFacts = {
    ...report,
    rows: rows.map((row) => ({ ...row, reasons: row.reasons.map((reason) => ({ ...reason, message: reasonText(row, reason) })) })),
    deltas: deltas.map((delta) => ({ ...delta, says: deltaText(delta) })),
    choice: {
      ...choice,
      says: choiceText(report),
      steps: choice.steps.map((step) => ({ ...step, says: stepText(report, step) })),
    },
  };
  return { ...spoken, simple: simpleView(spoken) };
}
