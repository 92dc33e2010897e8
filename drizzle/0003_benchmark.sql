CREATE TABLE `benchmark_row` (
	`jobId` text NOT NULL,
	`n` integer NOT NULL,
	`modelVersionId` text NOT NULL,
	`engine` text NOT NULL,
	`engineVersion` text NOT NULL,
	`precision` text NOT NULL,
	`batchSize` integer NOT NULL,
	`intraOpThreads` integer NOT NULL,
	`dimsJson` text NOT NULL,
	`load` text NOT NULL,
	`verdict` text NOT NULL,
	`reasonsJson` text NOT NULL,
	`samplesArtifactId` text,
	`telemetryJson` text NOT NULL,
	PRIMARY KEY(`jobId`, `n`),
	FOREIGN KEY (`jobId`) REFERENCES `benchmark_run`(`jobId`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`samplesArtifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `benchmark_row_version` ON `benchmark_row` (`modelVersionId`);--> statement-breakpoint
CREATE TABLE `benchmark_run` (
	`jobId` text PRIMARY KEY NOT NULL,
	`contextJson` text NOT NULL,
	`machineJson` text NOT NULL,
	`verdict` text NOT NULL,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `report` (
	`id` text PRIMARY KEY NOT NULL,
	`benchmarkJobId` text NOT NULL,
	`schemaVersion` integer NOT NULL,
	`sha256` text NOT NULL,
	`content` text NOT NULL,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`benchmarkJobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `report_benchmark` ON `report` (`benchmarkJobId`,`schemaVersion`);