/** A report as people read it: its facts with their sentences. */
import type { Report, ReportView, SpokenFacts } from './report.ts';
import { choiceText, deltaText, othersText, reasonText, stepText } from './sentences.ts';
import { simpleView } from './simple.ts';

/** Reports of the forms 1 to 3 were stored with their sentences, and measured one instance of a model in a single stream. */
const spokenFormMax = 3;

/** `stored` is the parsed content of a report of any form. */
export function viewOf(stored: Report | ReportView): ReportView {
  return stored.schemaVersion <= spokenFormMax ? ofSingleStream(stored as ReportView) : speak(stored as Report);
}

const ofSingleStream = (stored: ReportView): ReportView => ({
  ...stored,
  request: { ...stored.request, scenario: 'SINGLE_STREAM', instances: [1] },
  rows: stored.rows.map((row) => ({ ...row, instances: 1 })),
});

function speak(report: Report): ReportView {
  const { rows, deltas, choice } = report;
  const spoken: SpokenFacts = {
    ...report,
    rows: rows.map((row) => ({ ...row, reasons: row.reasons.map((reason) => ({ ...reason, message: reasonText(row, reason) })) })),
    deltas: deltas.map((delta) => ({ ...delta, says: deltaText(delta) })),
    choice: {
      ...choice,
      says: choiceText(report),
      others: othersText(report),
      steps: choice.steps.map((step) => ({ ...step, says: stepText(report, step) })),
    },
  };
  return { ...spoken, simple: simpleView(spoken) };
}
