CREATE TABLE `evaluation_findings` (
	`evaluationId` text PRIMARY KEY NOT NULL,
	`findingsJson` text NOT NULL,
	FOREIGN KEY (`evaluationId`) REFERENCES `evaluation`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
ALTER TABLE `evaluation` ADD `testTimeAugmentation` text DEFAULT 'NONE' NOT NULL;