ALTER TABLE `api_key` ADD `scopesJson` text DEFAULT '["INFER"]' NOT NULL;--> statement-breakpoint
ALTER TABLE `api_key` ADD `lastUsedAt` integer;--> statement-breakpoint
ALTER TABLE `audit` ADD `apiKeyId` text;--> statement-breakpoint
DROP TRIGGER `audit_no_update`;
--> statement-breakpoint
CREATE TRIGGER `audit_no_update` BEFORE UPDATE OF `seq`, `actorId`, `apiKeyId`, `action`, `targetType`, `targetId`, `requestId`, `outcome`, `detailJson`, `countKey` ON `audit`
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
