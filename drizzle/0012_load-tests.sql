CREATE TABLE `load_test` (
	`jobId` text PRIMARY KEY NOT NULL,
	`deploymentId` text NOT NULL,
	`revision` integer NOT NULL,
	`modelVersionId` text NOT NULL,
	`deadlineMs` real NOT NULL,
	`secondsPerRate` integer NOT NULL,
	`seed` integer NOT NULL,
	`capacityPerSecond` real NOT NULL,
	`endedAt` integer NOT NULL,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`deploymentId`) REFERENCES `deployment`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `load_test_deployment` ON `load_test` (`deploymentId`,`endedAt`);--> statement-breakpoint
CREATE INDEX `load_test_version` ON `load_test` (`modelVersionId`);--> statement-breakpoint
CREATE TABLE `load_test_rate` (
	`jobId` text NOT NULL,
	`n` integer NOT NULL,
	`resultJson` text NOT NULL,
	PRIMARY KEY(`jobId`, `n`),
	FOREIGN KEY (`jobId`) REFERENCES `load_test`(`jobId`) ON UPDATE no action ON DELETE no action
);
