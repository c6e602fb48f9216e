public let nameOfTestSupport = "TestSupport of another package"
