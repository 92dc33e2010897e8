ALTER TABLE `study` ADD `toldFrontJson` text;--> statement-breakpoint
ALTER TABLE `study` ADD `toldTrials` integer;