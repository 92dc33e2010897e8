CREATE TABLE `study_event` (
	`studyId` text NOT NULL,
	`seq` integer NOT NULL,
	`at` integer NOT NULL,
	`type` text NOT NULL,
	`payloadJson` text NOT NULL,
	PRIMARY KEY(`studyId`, `seq`),
	FOREIGN KEY (`studyId`) REFERENCES `study`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
ALTER TABLE `study` ADD `nextSeq` integer DEFAULT 1 NOT NULL;