CREATE TABLE `__new_attempt` (
	`jobId` text NOT NULL,
	`number` integer NOT NULL,
	`state` text NOT NULL,
	`pid` integer,
	`pidStart` text,
	`bootId` text,
	`resumedJson` text,
	`deviceJson` text,
	`environmentJson` text,
	`startedAt` integer NOT NULL,
	`endedAt` integer,
	`exitCode` integer,
	`signal` text,
	`charged` integer DEFAULT false NOT NULL,
	PRIMARY KEY(`jobId`, `number`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
INSERT INTO `__new_attempt`("jobId", "number", "state", "pid", "pidStart", "bootId", "resumedJson", "deviceJson", "environmentJson", "startedAt", "endedAt", "exitCode", "signal", "charged") SELECT "jobId", "number", "state", "pid", "pidStart", "bootId", NULL, "deviceJson", "environmentJson", "startedAt", "endedAt", "exitCode", "signal", "charged" FROM `attempt`;--> statement-breakpoint
DROP TABLE `attempt`;--> statement-breakpoint
ALTER TABLE `__new_attempt` RENAME TO `attempt`;--> statement-breakpoint
CREATE INDEX `attempt_state` ON `attempt` (`state`);