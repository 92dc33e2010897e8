PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE `__new_benchmark_row` (
	`jobId` text NOT NULL,
	`n` integer NOT NULL,
	`modelVersionId` text NOT NULL,
	`engine` text NOT NULL,
	`engineVersion` text NOT NULL,
	`precision` text NOT NULL,
	`batchSize` integer NOT NULL,
	`intraOpThreads` integer NOT NULL,
	`dimsJson` text NOT NULL,
	`load` text NOT NULL,
	`verdict` text NOT NULL,
	`reasonsJson` text NOT NULL,
	`samplesArtifactId` text,
	`telemetryJson` text NOT NULL,
	PRIMARY KEY(`jobId`, `n`),
	FOREIGN KEY (`jobId`) REFERENCES `benchmark_run`(`jobId`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`samplesArtifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE set null
);
--> statement-breakpoint
INSERT INTO `__new_benchmark_row`("jobId", "n", "modelVersionId", "engine", "engineVersion", "precision", "batchSize", "intraOpThreads", "dimsJson", "load", "verdict", "reasonsJson", "samplesArtifactId", "telemetryJson") SELECT "jobId", "n", "modelVersionId", "engine", "engineVersion", "precision", "batchSize", "intraOpThreads", "dimsJson", "load", "verdict", "reasonsJson", "samplesArtifactId", "telemetryJson" FROM `benchmark_row`;--> statement-breakpoint
DROP TABLE `benchmark_row`;--> statement-breakpoint
ALTER TABLE `__new_benchmark_row` RENAME TO `benchmark_row`;--> statement-breakpoint
PRAGMA foreign_keys=ON;--> statement-breakpoint
CREATE INDEX `benchmark_row_version` ON `benchmark_row` (`modelVersionId`);--> statement-breakpoint
CREATE TABLE `__new_model_version` (
	`id` text PRIMARY KEY NOT NULL,
	`modelId` text NOT NULL,
	`number` integer NOT NULL,
	`state` text NOT NULL,
	`format` text NOT NULL,
	`precision` text NOT NULL,
	`origin` text NOT NULL,
	`preset` text,
	`artifactId` text,
	`sha256` text,
	`sizeBytes` integer,
	`weightsHash` text,
	`lineageHash` text,
	`parentId` text,
	`datasetVersionId` text,
	`jobId` text,
	`signatureJson` text,
	`preprocessJson` text,
	`labelsJson` text,
	`gateJson` text,
	`createdAt` integer NOT NULL,
	`deletedAt` integer,
	FOREIGN KEY (`modelId`) REFERENCES `model`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`artifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE set null,
	FOREIGN KEY (`parentId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`datasetVersionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
INSERT INTO `__new_model_version`("id", "modelId", "number", "state", "format", "precision", "origin", "preset", "artifactId", "sha256", "sizeBytes", "weightsHash", "lineageHash", "parentId", "datasetVersionId", "jobId", "signatureJson", "preprocessJson", "labelsJson", "gateJson", "createdAt", "deletedAt") SELECT "id", "modelId", "number", "state", "format", "precision", "origin", "preset", "artifactId", "sha256", "sizeBytes", "weightsHash", "lineageHash", "parentId", "datasetVersionId", "jobId", "signatureJson", "preprocessJson", "labelsJson", "gateJson", "createdAt", "deletedAt" FROM `model_version`;--> statement-breakpoint
DROP TABLE `model_version`;--> statement-breakpoint
ALTER TABLE `__new_model_version` RENAME TO `model_version`;--> statement-breakpoint
CREATE UNIQUE INDEX `model_version_number` ON `model_version` (`modelId`,`number`);--> statement-breakpoint
CREATE INDEX `model_version_parent` ON `model_version` (`parentId`);--> statement-breakpoint
CREATE TABLE `__new_evaluation` (
	`id` text PRIMARY KEY NOT NULL,
	`modelVersionId` text NOT NULL,
	`datasetVersionId` text NOT NULL,
	`split` text NOT NULL,
	`engine` text NOT NULL,
	`metricsJson` text NOT NULL,
	`artifactId` text,
	`jobId` text NOT NULL,
	`createdAt` integer NOT NULL,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`datasetVersionId`) REFERENCES `dataset_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`artifactId`) REFERENCES `artifact`(`id`) ON UPDATE no action ON DELETE set null,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
INSERT INTO `__new_evaluation`("id", "modelVersionId", "datasetVersionId", "split", "engine", "metricsJson", "artifactId", "jobId", "createdAt") SELECT "id", "modelVersionId", "datasetVersionId", "split", "engine", "metricsJson", "artifactId", "jobId", "createdAt" FROM `evaluation`;--> statement-breakpoint
DROP TABLE `evaluation`;--> statement-breakpoint
ALTER TABLE `__new_evaluation` RENAME TO `evaluation`;--> statement-breakpoint
CREATE INDEX `evaluation_version` ON `evaluation` (`modelVersionId`);--> statement-breakpoint
-- A crash in the export has registered the same files again: of each content the first artifact stays, of each job the last evaluation.
DELETE FROM `evaluation` WHERE rowid NOT IN (SELECT max(rowid) FROM `evaluation` GROUP BY `jobId`);--> statement-breakpoint
UPDATE `evaluation` SET `artifactId` = (SELECT min(same.id) FROM artifact mine JOIN artifact same ON same.ownerType = mine.ownerType AND same.ownerId = mine.ownerId AND same.kind = mine.kind AND same.sha256 = mine.sha256 WHERE mine.id = `evaluation`.`artifactId`);--> statement-breakpoint
UPDATE `model_version` SET `artifactId` = (SELECT min(same.id) FROM artifact mine JOIN artifact same ON same.ownerType = mine.ownerType AND same.ownerId = mine.ownerId AND same.kind = mine.kind AND same.sha256 = mine.sha256 WHERE mine.id = `model_version`.`artifactId`);--> statement-breakpoint
UPDATE `benchmark_row` SET `samplesArtifactId` = (SELECT min(same.id) FROM artifact mine JOIN artifact same ON same.ownerType = mine.ownerType AND same.ownerId = mine.ownerId AND same.kind = mine.kind AND same.sha256 = mine.sha256 WHERE mine.id = `benchmark_row`.`samplesArtifactId`);--> statement-breakpoint
DELETE FROM `artifact` WHERE `id` NOT IN (SELECT min(`id`) FROM `artifact` GROUP BY `ownerType`, `ownerId`, `kind`, `sha256`);--> statement-breakpoint
CREATE UNIQUE INDEX `evaluation_job` ON `evaluation` (`jobId`);--> statement-breakpoint
DROP INDEX `artifact_owner`;--> statement-breakpoint
CREATE UNIQUE INDEX `artifact_content` ON `artifact` (`ownerType`,`ownerId`,`kind`,`sha256`);--> statement-breakpoint
ALTER TABLE `job` ADD `specVersion` integer DEFAULT 1 NOT NULL;--> statement-breakpoint
ALTER TABLE `job` ADD `parentId` text REFERENCES job(id);--> statement-breakpoint
ALTER TABLE `job` ADD `inputHash` text;--> statement-breakpoint
CREATE INDEX `job_parent` ON `job` (`parentId`);