DROP INDEX `session_revoked`;--> statement-breakpoint
CREATE INDEX `session_revoked` ON `session` (`revokedAt`);--> statement-breakpoint
DROP INDEX `job_retry`;--> statement-breakpoint
CREATE INDEX `job_retry` ON `job` (`retryOfId`);