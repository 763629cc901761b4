module bhatti/jail

go 1.19
