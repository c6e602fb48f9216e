public let nameOfPipeline = "Pipeline of another package"
