DROP INDEX `job_created`;--> statement-breakpoint
ALTER TABLE `job` ADD `traceparent` text;--> statement-breakpoint
CREATE INDEX `job_list` ON `job` (`createdAt`,`id`,`state`,`kind`,`createdById`,`parentId`);--> statement-breakpoint
DROP INDEX `job_hyperparameter_value`;--> statement-breakpoint
DROP INDEX `model_version_live`;--> statement-breakpoint
CREATE INDEX `model_version_live` ON `model_version` (`id`,`modelId`,`state`,`format`,`precision`,`jobId`,`deletedAt`) WHERE "model_version"."deletedAt" IS NULL;--> statement-breakpoint
CREATE INDEX `evaluation_metric_job` ON `evaluation_metric` (`jobId`,`name`,`value`);