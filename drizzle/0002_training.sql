CREATE TABLE `evaluation` (
	`id` text PRIMARY KEY NOT NULL,
	`modelVersionId` text NOT NULL,
	`datasetVersionId` text NOT NULL,
	`split` text NOT NULL,
	`engine` text NOT NULL,
	`metricsJson` text NOT NULL,
	`artifactId` text NOT NULL,
	`jobId` text NOT NULL,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`datasetVersionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`artifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `evaluation_version` ON `evaluation` (`modelVersionId`);