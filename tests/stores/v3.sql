BEGIN TRANSACTION;
CREATE TABLE touchstone_call (
            run_id VARCHAR(64) NOT NULL REFERENCES touchstone_run (id) ON DELETE CASCADE,
            trial_place INTEGER NOT NULL,
            place INTEGER NOT NULL,
            role VARCHAR(16) NOT NULL,
            provider TEXT NOT NULL,
            model TEXT NOT NULL,
            prompt_hash VARCHAR(64) NOT NULL,
            input_tokens BIGINT,
            output_tokens BIGINT,
            cached_tokens BIGINT,
            cost_usd DOUBLE PRECISION,
            cost_reason TEXT NOT NULL,
            latency_s DOUBLE PRECISION,
            status INTEGER,
            error TEXT,
            replayed INTEGER NOT NULL, host TEXT,
            PRIMARY KEY (run_id, trial_place, place)
        );
INSERT INTO "touchstone_call" VALUES('20260131-235959-0a1b2c',0,0,'app','openai','gpt-test','213c22ed7234eb11116e1e88f314c73cb3a019b5c87fe224b6ce5665bd9ec50e',11,7,NULL,0.5,'',2.0,200,NULL,1,'api.openai.com');
INSERT INTO "touchstone_call" VALUES('20260131-235959-0a1b2c',0,1,'judge','openai','gpt-test','',NULL,NULL,NULL,NULL,'no price',NULL,NULL,'ended',0,'');
CREATE TABLE touchstone_run (
            id VARCHAR(64) NOT NULL PRIMARY KEY,
            started VARCHAR(32) NOT NULL,
            ended VARCHAR(32) NOT NULL,
            complete INTEGER NOT NULL,
            exit_status INTEGER NOT NULL,
            git_commit VARCHAR(64),
            git_dirty INTEGER,
            git_branch TEXT,
            options TEXT NOT NULL,
            versions TEXT NOT NULL,
            models TEXT NOT NULL,
            judges TEXT NOT NULL,
            prompts TEXT NOT NULL
        , gate TEXT);
INSERT INTO "touchstone_run" VALUES('20260131-235959-0a1b2c','2026-01-31T23:59:59.123456Z','2026-02-01T00:00:04.123456Z',1,1,'3b4f2aa9c0000000000000000000000000000000',0,'main','{"record":"none"}','{"python":"3.11.7"}','["gpt-test"]','["openai:judge-1 0123abcd"]','["213c22ed7234eb11116e1e88f314c73cb3a019b5c87fe224b6ce5665bd9ec50e"]','{"result":"regressed","lines":["refunds: regressed","  worse: gift"]}');
CREATE TABLE touchstone_schema (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO "touchstone_schema" VALUES(1);
INSERT INTO "touchstone_schema" VALUES(2);
INSERT INTO "touchstone_schema" VALUES(3);
CREATE TABLE touchstone_trial (
            run_id VARCHAR(64) NOT NULL REFERENCES touchstone_run (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            suite TEXT NOT NULL,
            case_id TEXT NOT NULL,
            content_hash VARCHAR(64) NOT NULL,
            trial_number INTEGER NOT NULL,
            outcome VARCHAR(16) NOT NULL,
            output TEXT,
            duration_s DOUBLE PRECISION,
            details TEXT NOT NULL,
            PRIMARY KEY (run_id, place)
        );
INSERT INTO "touchstone_trial" VALUES('20260131-235959-0a1b2c',0,'evals/test_shop.py::test_refunds','late','952f2160431c4a71ac856fa8799de17e23afd9ec54f4675d6a384729c2a96298',3,'failed','No.',0.25,'{"nodeid":"evals/test_shop.py::test_refunds[late]","source":"evals/support.yaml:14","split":"holdout","tags":["refunds","\u00fcn\u00efcode"],"must_pass":true,"reason":"failed exact_match 0.00","scores":[{"name":"exact_match","value":0.0,"passed":false,"reason":"differs","judge":null},{"name":"judge","value":null,"passed":null,"reason":"refused","judge":"openai:judge-1 0123abcd"}]}');
INSERT INTO "touchstone_trial" VALUES('20260131-235959-0a1b2c',1,'evals/test_shop.py::test_refunds','gift','068a8171f1a2bbb1f8522a906571c1829f4f4b935d74a219e3789df77e8ff733',1,'passed','No.',0.25,'{"nodeid":"evals/test_shop.py::test_refunds[gift]","source":"evals/support.yaml:14","split":"train","tags":[],"must_pass":false,"reason":"","scores":[]}');
CREATE INDEX touchstone_run_started ON touchstone_run (started);
COMMIT;
