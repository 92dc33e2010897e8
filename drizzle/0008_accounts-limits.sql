DROP INDEX `session_family`;--> statement-breakpoint
DROP INDEX `session_user`;--> statement-breakpoint
ALTER TABLE `session` ADD `address` text;--> statement-breakpoint
CREATE INDEX `session_family` ON `session` (`familyId`) WHERE "session"."replacedById" IS NULL;--> statement-breakpoint
CREATE INDEX `session_user` ON `session` (`userId`) WHERE "session"."replacedById" IS NULL AND "session"."revokedAt" IS NULL;--> statement-breakpoint
ALTER TABLE `audit` ADD `count` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `audit` ADD `countKey` text;--> statement-breakpoint
CREATE UNIQUE INDEX `audit_countKey_unique` ON `audit` (`countKey`);--> statement-breakpoint
DROP TRIGGER `audit_no_update`;
--> statement-breakpoint
DROP TRIGGER `audit_no_delete`;
--> statement-breakpoint
CREATE TRIGGER `audit_no_update` BEFORE UPDATE OF `seq`, `actorId`, `action`, `targetType`, `targetId`, `requestId`, `outcome`, `detailJson`, `countKey` ON `audit`
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
--> statement-breakpoint
CREATE TRIGGER `audit_no_recount` BEFORE UPDATE OF `at`, `count` ON `audit` WHEN OLD.`countKey` IS NULL OR NEW.`count` IS NOT OLD.`count` + 1
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
--> statement-breakpoint
CREATE TRIGGER `audit_no_delete` BEFORE DELETE ON `audit` WHEN OLD.`at` > (unixepoch() - 86400) * 1000
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only: it keeps what is younger than a day'); END;
