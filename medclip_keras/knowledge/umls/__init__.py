"""UMLS and ontologies: concept tables compiled from a user's own files, and aliases for linking."""

from medclip_keras.knowledge.umls.knowledge_base import knowledge_base_aliases, knowledge_base_path

__all__ = ["knowledge_base_aliases", "knowledge_base_path"]
