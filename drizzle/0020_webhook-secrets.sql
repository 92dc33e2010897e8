ALTER TABLE `webhook` ADD `previousSecret` text;--> statement-breakpoint
ALTER TABLE `webhook` ADD `previousSecretUntil` integer;