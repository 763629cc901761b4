module bhatti/agent

go 1.19
