/** Lists of what has certain tags. */
import { type Placeholder, type SQL, type SQLWrapper, sql } from 'drizzle-orm';
import { tag } from './tables.ts';

/** Without a value: whatever it is. */
export interface TagFilter {
  key: string;
  value?: string | null;
}

/** The argument `wanted` of `hasTags`; null where nothing is asked for. */
export const wantedTags = (filters: readonly TagFilter[] | null | undefined): string | null =>
  filters && filters.length > 0 ? JSON.stringify(filters.map(({ key, value = null }) => ({ key: key.normalize('NFC'), value }))) : null;

/** Whether the thing with this id has all tags that are wanted. */
export const hasTags = (id: SQLWrapper, wanted: string | Placeholder): SQL => sql`NOT EXISTS (
  SELECT 1 FROM json_each(${wanted}) AS wanted WHERE NOT EXISTS (
    SELECT 1 FROM ${tag} WHERE ${tag.subjectId} = ${id} AND ${tag.key} = wanted.value ->> 'key'
      AND coalesce(wanted.value ->> 'value', ${tag.value}) = ${tag.value}))`;
