module github.com/iterate/durable-streams/streamctl

go 1.26

require (
	github.com/iterate/durable-streams/streamlib v0.0.0
	github.com/matryer/is v1.4.1
)

replace github.com/iterate/durable-streams/streamlib => ../streamlib
