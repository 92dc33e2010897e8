CREATE TABLE `job_hyperparameter` (
	`jobId` text NOT NULL,
	`name` text NOT NULL,
	`value` real NOT NULL,
	PRIMARY KEY(`jobId`, `name`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `job_hyperparameter_value` ON `job_hyperparameter` (`name`,`value`,`jobId`);--> statement-breakpoint
CREATE TABLE `evaluation_metric` (
	`evaluationId` text NOT NULL,
	`jobId` text NOT NULL,
	`modelVersionId` text NOT NULL,
	`name` text NOT NULL,
	`value` real NOT NULL,
	PRIMARY KEY(`evaluationId`, `name`),
	FOREIGN KEY (`evaluationId`) REFERENCES `evaluation`(`id`) ON UPDATE no action ON DELETE cascade
);
--> statement-breakpoint
CREATE INDEX `evaluation_metric_value` ON `evaluation_metric` (`name`,`value`,`jobId`,`modelVersionId`);--> statement-breakpoint
CREATE INDEX `evaluation_metric_version` ON `evaluation_metric` (`modelVersionId`,`name`,`value`,`jobId`);--> statement-breakpoint
CREATE INDEX `dataset_version_job` ON `dataset_version` (`jobId`);--> statement-breakpoint
CREATE INDEX `job_retry` ON `job` (`retryOfId`) WHERE "job"."retryOfId" IS NOT NULL;--> statement-breakpoint
CREATE INDEX `job_ended` ON `job` (`endedAt`,`id`);--> statement-breakpoint
CREATE INDEX `job_subject_job` ON `job_subject` (`jobId`);--> statement-breakpoint
CREATE INDEX `model_version_job` ON `model_version` (`jobId`);--> statement-breakpoint
CREATE INDEX `model_version_live` ON `model_version` (`id`) WHERE "model_version"."deletedAt" IS NULL;--> statement-breakpoint
INSERT INTO `job_hyperparameter` (`jobId`, `name`, `value`)
SELECT `job`.`id`, `one`.`key`, `one`.`value` FROM `job`, json_each(`job`.`specJson`, '$.hyperparameters') AS `one`
WHERE `job`.`kind` = 'TRAIN' AND `one`.`type` IN ('integer', 'real', 'text');
--> statement-breakpoint
INSERT INTO `evaluation_metric` (`evaluationId`, `jobId`, `modelVersionId`, `name`, `value`)
SELECT `evaluation`.`id`, `evaluation`.`jobId`, `evaluation`.`modelVersionId`, `one`.`key`, `one`.`value`
FROM `evaluation`, json_each(`evaluation`.`metricsJson`) AS `one` WHERE `one`.`type` IN ('integer', 'real');
