PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE `__new_job` (
	`id` text PRIMARY KEY NOT NULL,
	`kind` text NOT NULL,
	`state` text NOT NULL,
	`specJson` text NOT NULL,
	`specVersion` integer DEFAULT 1 NOT NULL,
	`slotsNeeded` integer NOT NULL,
	`priority` integer NOT NULL,
	`parentId` text,
	`retryOfId` text,
	`createdById` text,
	`idempotencyKey` text,
	`inputHash` text,
	`createdAt` integer NOT NULL,
	`startedAt` integer,
	`endedAt` integer,
	`attemptNumber` integer DEFAULT 0 NOT NULL,
	`notBefore` integer,
	`held` integer DEFAULT false NOT NULL,
	`backoffs` integer DEFAULT 0 NOT NULL,
	`nextSeq` integer DEFAULT 1 NOT NULL,
	`failureCode` text,
	`failureMessage` text,
	`resultJson` text,
	`traceparent` text,
	FOREIGN KEY (`parentId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`retryOfId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action,
	CONSTRAINT "job_slots" CHECK("__new_job"."slotsNeeded" >= -1)
);
--> statement-breakpoint
INSERT INTO `__new_job`("id", "kind", "state", "specJson", "specVersion", "slotsNeeded", "priority", "parentId", "retryOfId", "createdById", "idempotencyKey", "inputHash", "createdAt", "startedAt", "endedAt", "attemptNumber", "notBefore", "held", "backoffs", "nextSeq", "failureCode", "failureMessage", "resultJson", "traceparent") SELECT "id", "kind", "state", "specJson", "specVersion", "slotsNeeded", "priority", "parentId", "retryOfId", "createdById", "idempotencyKey", "inputHash", "createdAt", "startedAt", "endedAt", "attemptNumber", "notBefore", "held", "backoffs", "nextSeq", "failureCode", "failureMessage", "resultJson", "traceparent" FROM `job`;--> statement-breakpoint
DROP TABLE `job`;--> statement-breakpoint
ALTER TABLE `__new_job` RENAME TO `job`;--> statement-breakpoint
PRAGMA foreign_keys=ON;--> statement-breakpoint
CREATE UNIQUE INDEX `job_idempotency` ON `job` (`createdById`,`idempotencyKey`);--> statement-breakpoint
CREATE INDEX `job_queue` ON `job` (`state`,"priority" DESC,`createdAt`);--> statement-breakpoint
CREATE INDEX `job_parent` ON `job` (`parentId`);--> statement-breakpoint
CREATE INDEX `job_retry` ON `job` (`retryOfId`);--> statement-breakpoint
CREATE INDEX `job_ended` ON `job` (`endedAt`,`id`);--> statement-breakpoint
CREATE INDEX `job_list` ON `job` (`createdAt`,`id`,`state`,`kind`,`createdById`,`parentId`);--> statement-breakpoint
CREATE INDEX `job_failed` ON `job` (`endedAt`) WHERE "job"."state" = 'FAILED';