CREATE TABLE `__new_dataset_item` (
	`versionId` text NOT NULL,
	`n` integer NOT NULL,
	`split` text NOT NULL,
	`path` text NOT NULL,
	`sha256` text NOT NULL,
	`width` integer NOT NULL,
	`height` integer NOT NULL,
	`label` integer,
	`boxesJson` text,
	`thumbnailOffset` integer NOT NULL,
	`thumbnailBytes` integer NOT NULL,
	PRIMARY KEY(`versionId`, `n`),
	FOREIGN KEY (`versionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
INSERT INTO `__new_dataset_item`(`versionId`, `n`, `split`, `path`, `sha256`, `width`, `height`, `label`, `boxesJson`, `thumbnailOffset`, `thumbnailBytes`) SELECT `versionId`, `n`, `split`, `path`, `sha256`, `width`, `height`, `label`, NULL, `thumbnailOffset`, `thumbnailBytes` FROM `dataset_item`;--> statement-breakpoint
DROP TABLE `dataset_item`;--> statement-breakpoint
ALTER TABLE `__new_dataset_item` RENAME TO `dataset_item`;--> statement-breakpoint
CREATE TABLE `dataset_item_label` (
	`versionId` text NOT NULL,
	`n` integer NOT NULL,
	`label` integer NOT NULL,
	PRIMARY KEY(`versionId`, `n`, `label`),
	FOREIGN KEY (`versionId`,`n`) REFERENCES `dataset_item`(`versionId`,`n`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
INSERT INTO `dataset_item_label`(`versionId`, `n`, `label`) SELECT `versionId`, `n`, `label` FROM `dataset_item`;--> statement-breakpoint
CREATE INDEX `dataset_item_label_label` ON `dataset_item_label` (`versionId`,`label`,`n`);--> statement-breakpoint
UPDATE `dataset_version` SET `countsJson` = json_set(`countsJson`, '$.boxesBySplit', NULL, '$.images', json_object(
	'train', (SELECT sum(value) FROM json_each(`countsJson`, '$.bySplit.train')),
	'val', (SELECT sum(value) FROM json_each(`countsJson`, '$.bySplit.val')),
	'test', (SELECT sum(value) FROM json_each(`countsJson`, '$.bySplit.test'))
)) WHERE `countsJson` IS NOT NULL;
