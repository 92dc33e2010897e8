/** A tab that GraphiQL opens with. Its title is the name of the operation. */
export interface Example {
  query: string;
  variables?: Record<string, unknown>;
}
