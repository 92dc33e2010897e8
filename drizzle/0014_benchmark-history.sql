CREATE TABLE `benchmark_point` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`jobId` text NOT NULL,
	`modelId` text NOT NULL,
	`modelVersionId` text NOT NULL,
	`measuredAt` integer NOT NULL,
	`rowJson` text NOT NULL,
	`baselineJson` text NOT NULL,
	FOREIGN KEY (`jobId`) REFERENCES `benchmark_run`(`jobId`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelId`) REFERENCES `model`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE UNIQUE INDEX `benchmark_point_job` ON `benchmark_point` (`jobId`,`modelVersionId`);--> statement-breakpoint
CREATE INDEX `benchmark_point_model` ON `benchmark_point` (`modelId`,`seq`);--> statement-breakpoint
CREATE INDEX `benchmark_point_version` ON `benchmark_point` (`modelVersionId`,`seq`);--> statement-breakpoint
CREATE TABLE `regression` (
	`seq` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`at` integer NOT NULL,
	`jobId` text NOT NULL,
	`modelVersionId` text NOT NULL,
	`againstId` text NOT NULL,
	`metric` text NOT NULL,
	`factsJson` text NOT NULL,
	FOREIGN KEY (`jobId`) REFERENCES `job`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`modelVersionId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action,
	FOREIGN KEY (`againstId`) REFERENCES `model_version`(`id`) ON UPDATE no action ON DELETE no action
);
--> statement-breakpoint
CREATE INDEX `regression_job` ON `regression` (`jobId`);--> statement-breakpoint
CREATE INDEX `regression_version` ON `regression` (`modelVersionId`);--> statement-breakpoint
-- As `insertPoints` (src/history/points.ts) does for later benchmarks.
WITH newest AS (
	SELECT benchmarkJobId AS jobId, content FROM `report`
	WHERE schemaVersion = (SELECT max(schemaVersion) FROM `report` AS other WHERE other.benchmarkJobId = report.benchmarkJobId)
), measured AS (
	SELECT jobId, content, one.value AS row, one.value ->> '$.model' AS model,
		content -> ('$.rows[' || (content ->> '$.choice.n') || ']') AS chosen
	FROM newest, json_each(content, '$.rows') AS one
	WHERE json_type(one.value, '$.samples') = 'object' AND one.value ->> '$.verdict' <> 'INVALID'
), ranked AS (
	SELECT *, row_number() OVER (PARTITION BY jobId, model ORDER BY
		coalesce(row ->> '$.engine' = chosen ->> '$.engine' AND row ->> '$.batchSize' = chosen ->> '$.batchSize'
			AND row ->> '$.intraOpThreads' = chosen ->> '$.intraOpThreads'
			AND row ->> '$.instances' IS chosen ->> '$.instances', 0) DESC,
		row ->> '$.batchSize', row ->> '$.intraOpThreads', row ->> '$.instances', row ->> '$.n') AS place
	FROM measured
)
INSERT INTO `benchmark_point` (jobId, modelId, modelVersionId, measuredAt, rowJson, baselineJson)
SELECT ranked.jobId, version.modelId, version.id, run.contextJson ->> '$.measuredAt', ranked.row,
	coalesce(ranked.content -> ('$.rows[' || (ranked.content ->> '$.baseline') || ']'), ranked.row)
FROM ranked
JOIN `benchmark_run` AS run ON run.jobId = ranked.jobId
JOIN `model_version` AS version ON version.id = ranked.content ->> ('$.models[' || ranked.model || '].versionId')
WHERE ranked.place = 1
ORDER BY run.contextJson ->> '$.measuredAt', ranked.jobId, ranked.model;
