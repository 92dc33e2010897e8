CREATE TABLE `alert` (
	`metric` text NOT NULL,
	`deployment` text NOT NULL,
	`state` text NOT NULL,
	`since` integer NOT NULL,
	`value` real NOT NULL,
	`threshold` real NOT NULL,
	PRIMARY KEY(`metric`, `deployment`)
);
--> statement-breakpoint
CREATE TABLE `alert_event` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`at` integer NOT NULL,
	`metric` text NOT NULL,
	`deployment` text NOT NULL,
	`state` text NOT NULL,
	`value` real,
	`threshold` real NOT NULL
);
--> statement-breakpoint
CREATE TABLE `alert_rule` (
	`metric` text PRIMARY KEY NOT NULL,
	`threshold` real NOT NULL,
	`durationSeconds` integer NOT NULL,
	`enabled` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `webhook` (
	`id` text PRIMARY KEY NOT NULL,
	`url` text NOT NULL,
	`eventsJson` text NOT NULL,
	`secret` text NOT NULL,
	`enabled` integer NOT NULL,
	`createdById` text,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE TABLE `webhook_delivery` (
	`id` text PRIMARY KEY NOT NULL,
	`webhookId` text NOT NULL,
	`event` text NOT NULL,
	`body` text NOT NULL,
	`state` text NOT NULL,
	`attempts` integer DEFAULT 0 NOT NULL,
	`nextAt` integer,
	`triedUntil` integer NOT NULL,
	`httpStatus` integer,
	`response` text,
	`problem` text,
	`createdAt` integer NOT NULL,
	`endedAt` integer,
	FOREIGN KEY (`webhookId`) REFERENCES `webhook`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `webhook_delivery_webhook` ON `webhook_delivery` (`webhookId`,`id`);--> statement-breakpoint
CREATE INDEX `webhook_delivery_due` ON `webhook_delivery` (`webhookId`,`nextAt`);--> statement-breakpoint
CREATE INDEX `job_failed` ON `job` (`endedAt`) WHERE "job"."state" = 'FAILED';