BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0010');
CREATE TABLE api_keys (
	id VARCHAR(40) NOT NULL, 
	user VARCHAR(40) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	scope VARCHAR(20) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	created_at DATETIME NOT NULL, 
	last_used_at DATETIME, 
	revoked_at DATETIME, 
	PRIMARY KEY (id), 
	FOREIGN KEY(user) REFERENCES users (name)
);
INSERT INTO "api_keys" VALUES('key-1','alice','laptop','submit','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','2026-09-05 10:00:02.000000',NULL,NULL);
CREATE TABLE attempts (
	job_id VARCHAR(40) NOT NULL, 
	number INTEGER NOT NULL, 
	cluster TEXT NOT NULL, 
	process TEXT, 
	began_at DATETIME NOT NULL, 
	searching_at DATETIME, 
	seen_at DATETIME NOT NULL, 
	ended_at DATETIME, 
	reason TEXT, 
	writes INTEGER NOT NULL, 
	PRIMARY KEY (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "attempts" VALUES('job-2',1,'here','here 1 a','2026-09-02 10:00:02.000000','2026-09-02 10:00:09.000000','2026-09-02 10:01:00.000000',NULL,NULL,7);
CREATE TABLE audit (
	id INTEGER NOT NULL, 
	at DATETIME NOT NULL, 
	user VARCHAR(40) NOT NULL, 
	key_id VARCHAR(40), 
	address TEXT, 
	method VARCHAR(10) NOT NULL, 
	path TEXT NOT NULL, 
	status INTEGER NOT NULL, 
	made TEXT, 
	request_id VARCHAR(200) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "audit" VALUES(1,'2026-09-05 10:00:03.000000','admin',NULL,'127.0.0.1','POST','/users',201,'alice','request-1');
CREATE TABLE checkpoints (
	job_id VARCHAR(40) NOT NULL, 
	trial INTEGER NOT NULL, 
	format VARCHAR(20) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	created_at DATETIME NOT NULL, metric DOUBLE, 
	PRIMARY KEY (job_id, trial, format), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "checkpoints" VALUES('job-1',0,'pt2','dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd',1000,'2026-09-01 11:00:00.000000',NULL);
CREATE TABLE "datasets" (
	id VARCHAR(40) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	inspection JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	owner VARCHAR(40) DEFAULT 'admin' NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT fk_datasets_owner FOREIGN KEY(owner) REFERENCES users (name), 
	CONSTRAINT uq_datasets_owner UNIQUE (owner, sha256)
);
INSERT INTO "datasets" VALUES('dataset-1','bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb',3,'digits','{"classes": 10}','2026-09-01 10:00:01.000000','admin');
CREATE TABLE deliveries (
	event_id INTEGER NOT NULL, 
	job_id VARCHAR(40) NOT NULL, 
	due_at DATETIME NOT NULL, 
	tries INTEGER NOT NULL, 
	PRIMARY KEY (event_id), 
	FOREIGN KEY(event_id) REFERENCES events (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	job_id VARCHAR(40) NOT NULL, 
	type VARCHAR(20) NOT NULL, 
	data JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "events" VALUES(1,'job-1','state','{"state": "succeeded", "reason": null, "attempt": 1}','2026-09-01 10:00:10.000000');
INSERT INTO "events" VALUES(2,'job-2','state','{"state": "running", "reason": null, "attempt": 1}','2026-09-02 10:00:10.000000');
INSERT INTO "events" VALUES(3,'job-3','state','{"state": "queued", "reason": null, "attempt": 0}','2026-09-03 10:00:10.000000');
INSERT INTO "events" VALUES(4,'job-4','state','{"state": "failed", "reason": "The data are of no use.", "attempt": 1}','2026-09-04 10:00:10.000000');
CREATE TABLE idempotency_keys (
	owner VARCHAR(40) NOT NULL, 
	"key" VARCHAR(255) NOT NULL, 
	request_sha256 VARCHAR(64) NOT NULL, 
	job_id VARCHAR(40) NOT NULL, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (owner, "key"), 
	FOREIGN KEY(job_id) REFERENCES jobs (id), 
	FOREIGN KEY(owner) REFERENCES users (name)
);
INSERT INTO "idempotency_keys" VALUES('admin','key-1','cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc','job-1','2026-09-01 10:00:02.000000');
CREATE TABLE "jobs" (
	id VARCHAR(40) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	model_id VARCHAR(40) NOT NULL, 
	dataset_id VARCHAR(40) NOT NULL, 
	spec JSON NOT NULL, 
	budget_limit BIGINT, 
	planned_trials BIGINT NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	reason TEXT, 
	attempt INTEGER NOT NULL, 
	sequence INTEGER NOT NULL, 
	baseline JSON, 
	best JSON, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	finished_at DATETIME, 
	losses INTEGER DEFAULT '0' NOT NULL, 
	stop_asked BOOLEAN DEFAULT 0 NOT NULL, 
	scoring INTEGER DEFAULT '1' NOT NULL, 
	owner VARCHAR(40) DEFAULT 'admin' NOT NULL, 
	message TEXT, 
	webhook JSON, 
	times JSON, kept JSON, 
	PRIMARY KEY (id), 
	CONSTRAINT fk_jobs_owner FOREIGN KEY(owner) REFERENCES users (name), 
	FOREIGN KEY(model_id) REFERENCES models (id), 
	FOREIGN KEY(dataset_id) REFERENCES datasets (id)
);
INSERT INTO "jobs" VALUES('job-1','job 1','model-1','dataset-1','{"budget": {"metric": "macs", "ratio": 0.5}, "searcher": {"name": "random"}}',80000,20,'succeeded',NULL,1,2,'{"trial": null, "metric": 0.97, "macs": 70000, "params": 900, "size_bytes": 20000, "latency_ms": 0.5, "budget_ratio": 0.44}','{"trial": 0, "metric": 0.97, "macs": 70000, "params": 900, "size_bytes": 20000, "latency_ms": 0.5, "budget_ratio": 0.44}','2026-09-01 10:00:02.000000','2026-09-01 10:00:09.000000','2026-09-01 11:00:00.000000',0,FALSE,1,'admin',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('job-2','job 2','model-1','dataset-1','{"budget": {"metric": "macs", "ratio": 0.5}, "searcher": {"name": "random"}}',80000,20,'running',NULL,1,3,NULL,NULL,'2026-09-02 10:00:02.000000','2026-09-02 10:00:09.000000',NULL,0,FALSE,1,'admin',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('job-3','job 3','model-1','dataset-1','{"budget": {"metric": "macs", "ratio": 0.5}, "searcher": {"name": "random"}}',80000,20,'queued',NULL,0,0,NULL,NULL,'2026-09-03 10:00:02.000000',NULL,NULL,0,FALSE,1,'admin',NULL,'{"url": "https://example.org/hook", "secret": null, "events": ["state"]}',NULL,NULL);
INSERT INTO "jobs" VALUES('job-4','job 4','model-1','dataset-1','{"budget": {"metric": "macs", "ratio": 0.5}, "searcher": {"name": "random"}}',80000,20,'failed','The data are of no use.',1,0,NULL,NULL,'2026-09-04 10:00:02.000000','2026-09-04 10:00:09.000000','2026-09-04 11:00:00.000000',0,FALSE,1,'admin',NULL,NULL,NULL,NULL);
CREATE TABLE "models" (
	id VARCHAR(40) NOT NULL, 
	sha256 VARCHAR(64) NOT NULL, 
	size BIGINT NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	inspection JSON NOT NULL, 
	created_at DATETIME NOT NULL, 
	owner VARCHAR(40) DEFAULT 'admin' NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT fk_models_owner FOREIGN KEY(owner) REFERENCES users (name), 
	CONSTRAINT uq_models_owner UNIQUE (owner, sha256)
);
INSERT INTO "models" VALUES('model-1','aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',3,'net','{"macs": 160000, "groups": []}','2026-09-01 10:00:00.000000','admin');
CREATE TABLE trials (
	job_id VARCHAR(40) NOT NULL, 
	number INTEGER NOT NULL, 
	state VARCHAR(20) NOT NULL, 
	note TEXT NOT NULL, 
	widths JSON NOT NULL, 
	"plan" JSON NOT NULL, 
	macs BIGINT NOT NULL, 
	params BIGINT NOT NULL, 
	score DOUBLE, 
	metric DOUBLE, 
	error TEXT, 
	attempts INTEGER NOT NULL, 
	asked_sequence INTEGER NOT NULL, 
	told_sequence INTEGER, 
	started_at DATETIME, 
	finished_at DATETIME, 
	evaluate_seconds DOUBLE, 
	node TEXT, 
	pid INTEGER, size_bytes BIGINT, parent INTEGER, training JSON, losses JSON DEFAULT '[]' NOT NULL, latency_ns BIGINT, metric_drop DOUBLE, 
	PRIMARY KEY (job_id, number), 
	FOREIGN KEY(job_id) REFERENCES jobs (id)
);
INSERT INTO "trials" VALUES('job-1',0,'succeeded','trial 0','[8, 8]','{"widths": {"conv1": 8}, "sparsity": {"conv1": 0.5}}',70000,900,-0.25,0.9,NULL,1,1,2,'2026-09-02 10:01:00.000000','2026-09-02 10:01:01.000000',0.5,'node',11,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "trials" VALUES('job-2',0,'succeeded','trial 0','[8, 8]','{"widths": {"conv1": 8}, "sparsity": {"conv1": 0.5}}',70000,900,-0.125,0.9,NULL,1,1,3,'2026-09-02 10:01:00.000000','2026-09-02 10:01:01.000000',0.5,'node',11,NULL,NULL,NULL,'[]',NULL,NULL);
INSERT INTO "trials" VALUES('job-2',1,'running','trial 1','[8, 8]','{"widths": {"conv1": 8}, "sparsity": {"conv1": 0.5}}',70000,900,NULL,NULL,NULL,1,2,NULL,'2026-09-02 10:01:00.000000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',NULL,NULL);
CREATE TABLE users (
	name VARCHAR(40) NOT NULL, 
	max_jobs INTEGER, 
	max_trials BIGINT, 
	max_bytes BIGINT, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "users" VALUES('admin',NULL,NULL,NULL,'2026-09-05 10:00:00.000000');
INSERT INTO "users" VALUES('alice',2,NULL,NULL,'2026-09-05 10:00:01.000000');
CREATE INDEX ix_events_job_id_id ON events (job_id, id);
CREATE INDEX ix_trials_summary ON trials (job_id, state, score, number, metric, macs, params, size_bytes);
CREATE INDEX ix_idempotency_keys_job_id ON idempotency_keys (job_id);
CREATE INDEX ix_trials_state_seconds ON trials (state, evaluate_seconds);
CREATE INDEX ix_deliveries_job_id_event_id ON deliveries (job_id, event_id);
CREATE INDEX ix_deliveries_due_at ON deliveries (due_at);
CREATE INDEX ix_jobs_state ON jobs (state);
CREATE INDEX ix_jobs_owner_id ON jobs (owner, id);
COMMIT;
