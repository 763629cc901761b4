module bhatti/unpack

go 1.19
