CREATE TABLE `api_key` (
	`id` text PRIMARY KEY NOT NULL,
	`userId` text NOT NULL,
	`name` text NOT NULL,
	`prefix` text NOT NULL,
	`secretHash` text NOT NULL,
	`deploymentsJson` text,
	`createdAt` integer NOT NULL,
	`expiresAt` integer,
	`revokedAt` integer,
	FOREIGN KEY (`userId`) REFERENCES `user`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE UNIQUE INDEX `api_key_secretHash_unique` ON `api_key` (`secretHash`);--> statement-breakpoint
CREATE INDEX `api_key_user` ON `api_key` (`userId`,`id`);--> statement-breakpoint
CREATE INDEX `api_key_live` ON `api_key` (`id`) WHERE "api_key"."revokedAt" IS NULL;--> statement-breakpoint
CREATE INDEX `session_revoked` ON `session` (`revokedAt`) WHERE "session"."revokedAt" IS NOT NULL;