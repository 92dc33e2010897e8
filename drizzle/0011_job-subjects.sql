CREATE TABLE `job_subject` (
	`subjectId` text NOT NULL,
	`jobId` text NOT NULL,
	PRIMARY KEY(`subjectId`, `jobId`),
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
-- As `insertSubjects` (src/jobs/references.ts) does for later jobs.
INSERT OR IGNORE INTO `job_subject`
SELECT said.value, job.id FROM `job`, json_tree(json_array(json(job.specJson), json(coalesce(job.resultJson, 'null')))) AS said
WHERE said.type = 'text' AND (said.key IN ('modelId', 'modelVersionId', 'datasetVersionId') OR said.path LIKE '%.modelVersionIds');
--> statement-breakpoint
ALTER TABLE `metric_point` ADD `epoch` integer;--> statement-breakpoint
UPDATE `metric_point` SET epoch = ended.epoch
FROM (SELECT jobId, payloadJson ->> '$.step' AS step, max(payloadJson ->> '$.epoch') AS epoch FROM `job_event` WHERE type = 'EPOCH' GROUP BY 1, 2) AS ended
WHERE ended.jobId = `metric_point`.jobId AND ended.step = `metric_point`.step;
