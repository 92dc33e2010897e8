/** What commands and settings say of a server's address. */

export const isAddress = (given: string): boolean => ['http:', 'https:'].includes(URL.parse(given)?.protocol ?? '');

export const addressForm = 'an address such as http://127.0.0.1:8080';

/** What ends every message about a server that is not there. */
export const startOrName = 'Start it with `npm start`, or name another with --url or WHETSTONE_URL.';
