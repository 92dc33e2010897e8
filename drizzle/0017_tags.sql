CREATE TABLE `tag` (
	`subjectId` text NOT NULL,
	`key` text NOT NULL,
	`value` text NOT NULL,
	PRIMARY KEY(`subjectId`, `key`)
);
--> statement-breakpoint
CREATE INDEX `tag_key` ON `tag` (`key`,`value`);