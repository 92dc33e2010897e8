/** Opens the database of a data folder with another folder of migrations: `node migrate.ts <dataDir> <migrations>`. */
import '../../src/loading.ts';
import { openDatabase } from '../../src/db.ts';

const [dataDir = '', migrations] = process.argv.slice(2);
console.log('opening');
openDatabase(dataDir, migrations).close();
console.log('opened');
