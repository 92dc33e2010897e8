CREATE TABLE `deployment` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`createdAt` integer NOT NULL,
	`deletedAt` integer
);
--> statement-breakpoint
CREATE UNIQUE INDEX `deployment_name` ON `deployment` (`name`) WHERE "deployment"."deletedAt" IS NULL;--> statement-breakpoint
CREATE TABLE `deployment_revision` (
	`deploymentId` text NOT NULL,
	`number` integer NOT NULL,
	`modelVersionId` text NOT NULL,
	`settingsJson` text NOT NULL,
	`state` text NOT NULL,
	`reason` text,
	`createdById` text,
	`createdAt` integer NOT NULL,
	`activatedAt` integer,
	`retiredAt` integer,
	PRIMARY KEY(`deploymentId`, `number`),
	FOREIGN KEY (`deploymentId`) REFERENCES `deployment`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`createdById`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `deployment_loading` ON `deployment_revision` (`deploymentId`) WHERE "deployment_revision"."state" = 'LOADING';--> statement-breakpoint
CREATE UNIQUE INDEX `deployment_active` ON `deployment_revision` (`deploymentId`) WHERE "deployment_revision"."state" = 'ACTIVE';--> statement-breakpoint
CREATE INDEX `deployment_revision_version` ON `deployment_revision` (`modelVersionId`);