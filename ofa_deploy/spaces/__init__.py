"""Search spaces: operators, networks as values, the walk, costs, and the forms of others."""
