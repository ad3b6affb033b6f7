# Thin: each target is a script in ops/, which says what it does in its first lines.
.DEFAULT_GOAL := help
.PHONY: help up down reset test lint demo bench sqlx

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

up: ## install, start, build, load the sample catalogue, search it
	@ops/up

down: ## end exactly what `make up` started; the data stays
	@ops/down

reset: ## the same, and remove the data
	@ops/reset

test: ## everything: format, lints, docs, licences, unit tests, scenarios on servers of its own
	@ops/test

lint: ## what of `make test` needs no server
	@ops/lint

demo: ## import another catalogue: make demo DATA=file.ndjson
	@ops/demo "$(DATA)"

bench: ## speed as ratios to baselines of the same run, in a release build
	@ops/bench

sqlx: ## write .sqlx anew after a changed statement or migration
	@ops/sqlx
