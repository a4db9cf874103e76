"""From rows of an archive to a published dataset: the steps that both record-making jobs share."""
