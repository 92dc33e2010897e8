/** Makes a report again from a data folder: `node remakeReport.ts FOLDER JOB`. Its second line tells in which surroundings. */
import { readConfig } from '../../src/config.ts';
import { openDatabase } from '../../src/db.ts';
import { remakeReport } from '../../src/reports/reports.ts';

const [dataDir, jobId] = process.argv.slice(2) as [string, string];
const { db, close } = openDatabase(dataDir);
const { content } = await remakeReport({ db, config: readConfig({ WHETSTONE_DATA_DIR: dataDir }) }, jobId);
close();
console.log(content);
console.log(JSON.stringify({ year: new Date().getFullYear(), midnight: new Date(0).getHours(), number: (1234.5).toLocaleString() }));
