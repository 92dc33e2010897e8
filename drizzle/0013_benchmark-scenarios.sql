ALTER TABLE `benchmark_row` ADD `instances` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `benchmark_row` ADD `scenario` text DEFAULT 'SINGLE_STREAM' NOT NULL;--> statement-breakpoint
ALTER TABLE `benchmark_row` DROP COLUMN `load`;