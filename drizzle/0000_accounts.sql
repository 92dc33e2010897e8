CREATE TABLE `audit` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`at` integer NOT NULL,
	`actorId` text,
	`action` text NOT NULL,
	`targetType` text,
	`targetId` text,
	`requestId` text,
	`outcome` text NOT NULL,
	`detailJson` text
);
--> statement-breakpoint
CREATE TABLE `login_throttle` (
	`nameHash` text PRIMARY KEY NOT NULL,
	`failures` integer NOT NULL,
	`notBefore` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `session` (
	`id` text PRIMARY KEY NOT NULL,
	`userId` text NOT NULL,
	`familyId` text NOT NULL,
	`refreshHash` text NOT NULL,
	`replacedById` text,
	`client` text,
	`createdAt` integer NOT NULL,
	`expiresAt` integer NOT NULL,
	`revokedAt` integer,
	FOREIGN KEY (`userId`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE UNIQUE INDEX `session_refreshHash_unique` ON `session` (`refreshHash`);--> statement-breakpoint
CREATE INDEX `session_family` ON `session` (`familyId`);--> statement-breakpoint
CREATE INDEX `session_user` ON `session` (`userId`);--> statement-breakpoint
CREATE INDEX `session_expiry` ON `session` (`expiresAt`);--> statement-breakpoint
CREATE TABLE `user` (
	`id` text PRIMARY KEY NOT NULL,
	`name` text NOT NULL,
	`passwordHash` text NOT NULL,
	`role` text NOT NULL,
	`disabledAt` integer,
	`createdAt` integer NOT NULL,
	CONSTRAINT "user_role" CHECK("user"."role" IN ('VIEWER', 'ENGINEER', 'ADMIN'))
);
--> statement-breakpoint
CREATE UNIQUE INDEX `user_name` ON `user` ("name" COLLATE NOCASE);--> statement-breakpoint
CREATE TRIGGER `audit_no_update` BEFORE UPDATE ON `audit` BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
--> statement-breakpoint
CREATE TRIGGER `audit_no_delete` BEFORE DELETE ON `audit` BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
