CREATE TABLE `study` (
	`id` text PRIMARY KEY NOT NULL,
	`jobId` text NOT NULL,
	`modelId` text NOT NULL,
	`datasetVersionId` text NOT NULL,
	`settingsJson` text NOT NULL,
	`trials` integer NOT NULL,
	`askedAt` integer,
	`importanceJson` text NOT NULL,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelId`) REFERENCES `model`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`datasetVersionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `study_job` ON `study` (`jobId`);--> statement-breakpoint
CREATE INDEX `study_created` ON `study` (`createdAt`,`id`);--> statement-breakpoint
CREATE TABLE `trial` (
	`studyId` text NOT NULL,
	`number` integer NOT NULL,
	`generation` integer NOT NULL,
	`paramsJson` text NOT NULL,
	`hash` text NOT NULL,
	`copyOf` integer,
	`outcome` text,
	`valuesJson` text,
	`epochs` integer DEFAULT 0 NOT NULL,
	`jobId` text,
	`finalJobId` text,
	PRIMARY KEY(`studyId`, `number`),
	FOREIGN KEY (`studyId`) REFERENCES `study`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`finalJobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `trial_job` ON `trial` (`jobId`);--> statement-breakpoint
CREATE INDEX `trial_final` ON `trial` (`finalJobId`);--> statement-breakpoint
ALTER TABLE `job` ADD `held` integer DEFAULT false NOT NULL;