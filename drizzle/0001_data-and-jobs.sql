CREATE TABLE `dataset` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`task` text NOT NULL,
	`notes` text DEFAULT '' NOT NULL,
	`createdById` text,
	`createdAt` integer NOT NULL,
	`deletedAt` integer,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `dataset_name` ON `dataset` (`name`) WHERE "dataset"."deletedAt" IS NULL;--> statement-breakpoint
CREATE TABLE `dataset_item` (
	`versionId` text NOT NULL,
	`n` integer NOT NULL,
	`split` text NOT NULL,
	`path` text NOT NULL,
	`sha256` text NOT NULL,
	`width` integer NOT NULL,
	`height` integer NOT NULL,
	`label` integer NOT NULL,
	`thumbnailOffset` integer NOT NULL,
	`thumbnailBytes` integer NOT NULL,
	PRIMARY KEY(`versionId`, `n`),
	FOREIGN KEY (`versionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `dataset_item_class` ON `dataset_item` (`versionId`,`split`,`label`,`n`);--> statement-breakpoint
CREATE TABLE `dataset_version` (
	`id` text PRIMARY KEY NOT NULL,
	`datasetId` text NOT NULL,
	`number` integer NOT NULL,
	`state` text NOT NULL,
	`contentHash` text,
	`splitSeed` integer NOT NULL,
	`classesJson` text,
	`countsJson` text,
	`sizeBytes` integer,
	`jobId` text,
	`createdAt` integer NOT NULL,
	`deletedAt` integer,
	FOREIGN KEY (`datasetId`) REFERENCES `dataset`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `dataset_version_number` ON `dataset_version` (`datasetId`,`number`);--> statement-breakpoint
CREATE INDEX `dataset_version_content` ON `dataset_version` (`contentHash`);--> statement-breakpoint
CREATE TABLE `attempt` (
	`jobId` text NOT NULL,
	`number` integer NOT NULL,
	`state` text NOT NULL,
	`pid` integer,
	`pidStart` text,
	`bootId` text,
	`resumedFromArtifactId` text,
	`deviceJson` text,
	`environmentJson` text,
	`startedAt` integer NOT NULL,
	`endedAt` integer,
	`exitCode` integer,
	`signal` text,
	`charged` integer DEFAULT false NOT NULL,
	PRIMARY KEY(`jobId`, `number`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`resumedFromArtifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `attempt_state` ON `attempt` (`state`);--> statement-breakpoint
CREATE TABLE `job` (
	`id` text PRIMARY KEY NOT NULL,
	`kind` text NOT NULL,
	`state` text NOT NULL,
	`specJson` text NOT NULL,
	`slotsNeeded` integer NOT NULL,
	`priority` integer NOT NULL,
	`retryOfId` text,
	`createdById` text,
	`idempotencyKey` text,
	`createdAt` integer NOT NULL,
	`startedAt` integer,
	`endedAt` integer,
	`attemptNumber` integer DEFAULT 0 NOT NULL,
	`nextSeq` integer DEFAULT 1 NOT NULL,
	`failureCode` text,
	`failureMessage` text,
	`resultJson` text,
	FOREIGN KEY (`retryOfId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action,
	CONSTRAINT "job_slots" CHECK("job"."slotsNeeded" IN (-1, 0, 1))
);
--> statement-breakpoint
CREATE UNIQUE INDEX `job_idempotency` ON `job` (`createdById`,`idempotencyKey`);--> statement-breakpoint
CREATE INDEX `job_queue` ON `job` (`state`,"priority" DESC,`createdAt`);--> statement-breakpoint
CREATE INDEX `job_created` ON `job` (`createdAt`,`id`);--> statement-breakpoint
CREATE TABLE `job_event` (
	`jobId` text NOT NULL,
	`seq` integer NOT NULL,
	`attemptNumber` integer NOT NULL,
	`at` integer NOT NULL,
	`type` text NOT NULL,
	`payloadJson` text NOT NULL,
	PRIMARY KEY(`jobId`, `seq`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `metric_point` (
	`jobId` text NOT NULL,
	`name` text NOT NULL,
	`step` integer NOT NULL,
	`value` real NOT NULL,
	`attemptNumber` integer NOT NULL,
	PRIMARY KEY(`jobId`, `name`, `step`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `slot` (
	`n` integer PRIMARY KEY NOT NULL,
	`jobId` text,
	`attemptNumber` integer,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `model` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`task` text NOT NULL,
	`notes` text DEFAULT '' NOT NULL,
	`createdById` text,
	`createdAt` integer NOT NULL,
	`deletedAt` integer,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `model_name` ON `model` (`name`) WHERE "model"."deletedAt" IS NULL;--> statement-breakpoint
CREATE TABLE `model_alias` (
	`modelId` text NOT NULL,
	`name` text NOT NULL,
	`versionId` text NOT NULL,
	PRIMARY KEY(`modelId`, `name`),
	FOREIGN KEY (`modelId`) REFERENCES `model`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`versionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `model_version` (
	`id` text PRIMARY KEY NOT NULL,
	`modelId` text NOT NULL,
	`number` integer NOT NULL,
	`state` text NOT NULL,
	`format` text NOT NULL,
	`precision` text NOT NULL,
	`origin` text NOT NULL,
	`preset` text,
	`artifactId` text,
	`sha256` text,
	`sizeBytes` integer,
	`weightsHash` text,
	`lineageHash` text,
	`parentId` text,
	`datasetVersionId` text,
	`jobId` text,
	`signatureJson` text,
	`preprocessJson` text,
	`labelsJson` text,
	`gateJson` text,
	`createdAt` integer NOT NULL,
	`deletedAt` integer,
	FOREIGN KEY (`modelId`) REFERENCES `model`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`artifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`parentId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`datasetVersionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `model_version_number` ON `model_version` (`modelId`,`number`);--> statement-breakpoint
CREATE INDEX `model_version_parent` ON `model_version` (`parentId`);--> statement-breakpoint
CREATE TABLE `artifact` (
	`id` text PRIMARY KEY NOT NULL,
	`ownerType` text NOT NULL,
	`ownerId` text NOT NULL,
	`kind` text NOT NULL,
	`name` text NOT NULL,
	`sha256` text NOT NULL,
	`metaJson` text,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`sha256`) REFERENCES `blob`(`sha256`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `artifact_owner` ON `artifact` (`ownerType`,`ownerId`);--> statement-breakpoint
CREATE INDEX `artifact_blob` ON `artifact` (`sha256`);--> statement-breakpoint
CREATE TABLE `blob` (
	`sha256` text PRIMARY KEY NOT NULL,
	`sizeBytes` integer NOT NULL,
	`createdAt` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `upload` (
	`id` text PRIMARY KEY NOT NULL,
	`userId` text NOT NULL,
	`fileName` text NOT NULL,
	`sizeBytes` integer NOT NULL,
	`state` text NOT NULL,
	`createdAt` integer NOT NULL,
	`expiresAt` integer NOT NULL,
	FOREIGN KEY (`userId`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `upload_state` ON `upload` (`state`,`expiresAt`);