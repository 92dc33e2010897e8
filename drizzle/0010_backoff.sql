ALTER TABLE `attempt` ADD `durationMs` integer;--> statement-breakpoint
ALTER TABLE `job` ADD `notBefore` integer;--> statement-breakpoint
ALTER TABLE `job` ADD `backoffs` integer DEFAULT 0 NOT NULL;