import '../accounts/apiKeys.schema.ts';
import '../accounts/schema.ts';
import '../benchmark/schema.ts';
import '../datasets/schema.ts';
import '../deployments/schema.ts';
import '../jobs/events.schema.ts';
import '../jobs/schema.ts';
import '../system/schema.ts';
import '../models/schema.ts';
import '../reports/schema.ts';
import '../training/jobs.schema.ts';
import '../training/schema.ts';
import { builder } from './builder.ts';

/** The whole API. Each domain's schema.ts adds its types and root fields to the builder when it is imported. */
export const schema = builder.toSchema();
