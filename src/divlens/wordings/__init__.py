"""Other wordings of prompts, from wherever they come (`sources`, `endpoint`), asked for once (`asking`) and checked to
mean the same (`meaning`)."""
